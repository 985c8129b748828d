"""Makes the context of a document, which is the form in which the decoder sees it, such as pages or text tokens."""
