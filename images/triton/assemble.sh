# Put the server and its Python backend, with the stub for this Python, where Triton keeps them.
set -eu
site=/usr/local/lib/python3.11/site-packages
from=$site/pytriton/tritonserver
mkdir -p backends bin
cp -r "$from/backends/python" backends/python
cp "$from/python_backend_stubs/3.11/triton_python_backend_stub" backends/python/
ln -s "$from/bin/tritonserver" bin/tritonserver
# A stub whose libraries are missing fails later with words that lead astray: fail here.
if LD_LIBRARY_PATH="$site/nvidia_pytriton.libs:/usr/local/lib" \
    ldd backends/python/triton_python_backend_stub | grep 'not found'; then
    echo "the base image lacks the library above (Debian: apt-get install libpython3.11)" >&2
    exit 1
fi
