"""The bundled model of coloured shapes."""
