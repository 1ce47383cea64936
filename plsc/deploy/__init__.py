"""Deploy: a graph becomes the next version of a served model, without clients noticing."""
