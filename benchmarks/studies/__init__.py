"""Training studies with several seeds: CIFAR-10, perturbed test sets, PReg, ablations."""
