"""Compose with a trained model: the same as ``fractalgen generate``."""

import sys

from fractalgen.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["generate", *sys.argv[1:]]))
