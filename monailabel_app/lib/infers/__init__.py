"""What the server can be asked: a question, a drawn region, a target through the volume."""
