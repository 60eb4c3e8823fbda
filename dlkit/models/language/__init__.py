"""Language models: decoders, an encoder, an encoder-decoder, the encoder of speech; and how text is drawn from them."""
