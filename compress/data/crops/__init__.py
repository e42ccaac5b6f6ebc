"""Training crops: drawn, recoloured, mixed and cached."""
