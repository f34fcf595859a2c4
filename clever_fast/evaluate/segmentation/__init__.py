"""Segmentation with frozen features: DAVIS' video masks and TokenCut's saliency."""
