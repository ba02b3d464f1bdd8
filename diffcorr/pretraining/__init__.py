"""The embedded model's own training: images -> autoencoder -> latents -> text-conditional diffusion."""
