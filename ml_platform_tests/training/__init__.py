"""Tests of what runs inside the training job."""
