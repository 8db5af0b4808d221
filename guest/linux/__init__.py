"""An arm64 Linux as the hypervisor: its initramfs, made here, with an init and a VMM that are compiled here."""
