"""Pileus: an Infrastructure-as-a-Service cloud platform, real down to the guest."""

__version__ = "0.1.0"
