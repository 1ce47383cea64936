"""The stages as Kubeflow components: thin definitions, one import and one call each."""
