"""One folder a product. `nyc_flights` is the reference one; `ml-platform new NAME` adds another."""
