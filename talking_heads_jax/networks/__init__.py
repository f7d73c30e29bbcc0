"""Fixed, pretrained networks behind losses, metrics and estimators; their weights are passed in."""
