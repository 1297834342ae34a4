"""How are payloads decoded to pictures and crops, and which encodings (tiles, yuv420) make decoding faster?"""
