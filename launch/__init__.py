"""Ways to run on Cloud TPU, GKE, Slurm and Colab, and a rehearsal of all that is run there."""
