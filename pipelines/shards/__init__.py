"""Tar shards as WebDataset names them: KEY.jpg, KEY.cls and KEY.json of every sample, read without being unpacked."""
