"""The local training loop: saved labels become the next reasoner, if it is not worse (docs/train_on_your_data.md)."""
