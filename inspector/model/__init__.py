"""The ViT-memory autoencoder, its bundle on disk and the engine that runs it."""
