from setuptools import setup

setup(cffi_modules=["bridge/hotpath/build.py:ffibuilder"])
