"""People's own pictures with captions: folders, Hugging Face datasets and webdataset shards behind one interface."""
