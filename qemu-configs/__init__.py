"""Machines as QEMU `-readconfig` files; `pyvfio_user.guest.machines` reads them."""
