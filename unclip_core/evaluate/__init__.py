"""Measuring any model on any pictures with captions: how well it follows texts, and how much its pictures look true."""
