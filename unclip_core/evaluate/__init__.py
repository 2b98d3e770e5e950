"""Measuring any model on any images with captions: how well it follows texts, and how much its images look true."""
