"""Procedural labelled images with the statistics of photographs, from numpy and Pillow alone.

An object lies on a cluttered background. Its texture or its shape is the class; everything else is drawn from the same
distributions for every class: colours, contrast, position, scale, orientation, background, light, blur, noise, JPEG
quality. So no class can be told from its colours or from a template of its pixels.
"""
