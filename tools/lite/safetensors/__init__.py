"""A stand-in for safetensors, whose compiled code does not exist for Python in the browser.

It has the four functions that the book's notebooks call, in `safetensors.numpy`.
"""
