"""What a kernel does with the BARs that its virtual machines get: booted in QEMU, looked at, proved, and named."""
