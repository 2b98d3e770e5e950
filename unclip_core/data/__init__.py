"""People's own images with captions: folders, Hugging Face datasets and webdataset shards behind one interface."""
