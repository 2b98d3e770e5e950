"""The world of things: data and judge of a bundled model that draws what it is told to, from free drawings."""
