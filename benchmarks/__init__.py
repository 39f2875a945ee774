"""Side-by-side measurements: what FractalGen is compared with.  Not part of the installed package."""
