"""Fast self-supervised pretraining of CLeVER (contrastive learning via equivariant representation)."""

__version__ = "0.1.0"
