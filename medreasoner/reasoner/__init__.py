"""Reasoners: a question and a picture go in, the text of an answer comes out."""
