"""The MONAI Label server that answers questions about images: its application, and the gateway in front of it."""
