"""Merges folders of models tensor by tensor, from their files into new ones, in bounded memory."""
