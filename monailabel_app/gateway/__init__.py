"""The gateway: what stands between the network and MONAI Label's application."""
