from setuptools import find_packages, setup

packages = [f"pyvfio_user.{name}" for name in find_packages(include=["bridge*", "devices*", "guest*"])]
setup(packages=[*packages, "pyvfio_user.qemu_configs"], cffi_modules=["bridge/hotpath/build.py:ffibuilder"])
