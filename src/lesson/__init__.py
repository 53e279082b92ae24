"""The lesson: a multilayer perceptron learns MNIST. What a fork replaces."""
