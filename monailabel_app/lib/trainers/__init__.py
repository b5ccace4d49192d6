"""Training tasks, as MONAI Label calls them."""
