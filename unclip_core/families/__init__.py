"""Families of models: a registry, and one package per family that reads and writes its folders."""
