"""Networks that people have, made faster without another key or number."""
