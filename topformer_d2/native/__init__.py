"""The C files of this folder, where they were compiled with the package: see library.py."""
