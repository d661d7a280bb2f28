"""OpenSSL 3.2 or newer against a session's TLS, in both roles.

    interop.py BINARY FOLDER

BINARY is the example `interop` of the crate pinhole-tls; in FOLDER are libssl and
libcrypto, such as those in the wheel of psycopg2-binary. Both ends show a raw public
key (RFC 7250). OpenSSL sends back what it gets, asks for a new key from time to
time, and has its key compared with the one that the other end has seen.
"""

import ctypes
import glob
import socket
import subprocess
import sys
from ctypes import byref, c_char_p, c_int, c_long, c_size_t, c_ubyte, c_uint, c_void_p, create_string_buffer

ED25519 = 1087
RAW_PUBLIC_KEY = b"\x02"
TLS_1_3 = 0x0304
SET_MIN_PROTOCOL = 123
VERIFY_PEER_OR_FAIL = 1 | 2
KEY_UPDATE_REQUESTED = 1
ALPN = b"\x0epinhole-peer/1"
PIECE_BYTES = 65536
# Pieces between two new keys.
PIECES_OF_A_KEY = 5


def load(folder):
    crypto = ctypes.CDLL(glob.glob(f"{folder}/libcrypto*")[0], mode=ctypes.RTLD_GLOBAL)
    ssl = ctypes.CDLL(glob.glob(f"{folder}/libssl*")[0])
    for library, names in (
        (crypto, ["EVP_PKEY_new_raw_private_key"]),
        (ssl, ["TLS_method", "SSL_CTX_new", "SSL_new", "SSL_get0_peer_rpk"]),
    ):
        for name in names:
            getattr(library, name).restype = c_void_p
    crypto.OpenSSL_version.restype = c_char_p
    return crypto, ssl


VERIFY = ctypes.CFUNCTYPE(c_int, c_int, c_void_p)
SELECT = ctypes.CFUNCTYPE(
    c_int, c_void_p, ctypes.POINTER(c_void_p), ctypes.POINTER(c_ubyte), c_void_p, c_uint, c_void_p
)
# Whoever is there is looked at afterwards.
accept_any_key = VERIFY(lambda _ok, _store: 1)
alpn_name = create_string_buffer(ALPN[1:], len(ALPN) - 1)


@SELECT
def select_alpn(_ssl, out, out_length, offered, length, _argument):
    if ctypes.string_at(offered, length) != ALPN:
        return 2
    out[0] = ctypes.addressof(alpn_name)
    out_length[0] = len(ALPN) - 1
    return 0


def check(outcome, what):
    if outcome != 1:
        raise RuntimeError(f"{what}: {outcome}")


def raw_public(crypto, key):
    public, length = create_string_buffer(32), c_size_t(32)
    check(crypto.EVP_PKEY_get_raw_public_key(c_void_p(key), public, byref(length)), "the key")
    return public.raw.hex()


def connection(crypto, ssl, tcp, key):
    context = ssl.SSL_CTX_new(c_void_p(ssl.TLS_method()))
    ssl.SSL_CTX_ctrl(c_void_p(context), SET_MIN_PROTOCOL, c_long(TLS_1_3), None)
    ssl.SSL_CTX_set_alpn_protos(c_void_p(context), ALPN, len(ALPN))
    ssl.SSL_CTX_set_alpn_select_cb(c_void_p(context), select_alpn, None)
    made = c_void_p(ssl.SSL_new(c_void_p(context)))
    ssl.SSL_set_verify(made, VERIFY_PEER_OR_FAIL, accept_any_key)
    check(ssl.SSL_set1_server_cert_type(made, RAW_PUBLIC_KEY, c_size_t(1)), "the server's type")
    check(ssl.SSL_set1_client_cert_type(made, RAW_PUBLIC_KEY, c_size_t(1)), "the client's type")
    check(ssl.SSL_use_PrivateKey(made, c_void_p(key)), "the private key")
    check(ssl.SSL_set_fd(made, tcp.fileno()), "the socket")
    return made


def echo(ssl, made):
    buffer, count, pieces, total = create_string_buffer(PIECE_BYTES), c_size_t(), 0, 0
    while ssl.SSL_read_ex(made, buffer, c_size_t(PIECE_BYTES), byref(count)) == 1:
        total += count.value
        pieces += 1
        if pieces % PIECES_OF_A_KEY == 0:
            check(ssl.SSL_key_update(made, KEY_UPDATE_REQUESTED), "another key")
        check(ssl.SSL_write_ex(made, buffer, count, byref(count)), "writing")
    # 2: the other end has said that it was all.
    if ssl.SSL_get_shutdown(made) & 2 == 0:
        raise RuntimeError(f"an error after {total} bytes: {ssl.SSL_get_error(made, 0)}")
    ssl.SSL_shutdown(made)
    return total


def run(crypto, ssl, binary, key, is_server):
    if is_server:
        listener = socket.create_server(("127.0.0.1", 0))
        command = [binary, "client", "127.0.0.1:%d" % listener.getsockname()[1]]
    else:
        command = [binary, "server"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if is_server:
            tcp = listener.accept()[0]
        else:
            tcp = socket.create_connection(("127.0.0.1", int(other.stdout.readline())))
        made = connection(crypto, ssl, tcp, key)
        shaken = ssl.SSL_accept(made) if is_server else ssl.SSL_connect(made)
        check(shaken, f"the handshake ({ssl.SSL_get_error(made, shaken)})")
        seen, own = other.stdout.readline().strip(), other.stdout.readline().strip()
        if seen != raw_public(crypto, key) or own != raw_public(crypto, ssl.SSL_get0_peer_rpk(made)):
            raise RuntimeError("another key")
        total = echo(ssl, made)
        said = other.stdout.readline().strip()
        if other.wait(60) != 0 or said != "the same":
            raise RuntimeError(f"the other end says {said!r}")
        print(f"OpenSSL as {'server' if is_server else 'client'}: {total} bytes there and back")
    finally:
        other.kill()
        other.wait()


def main():
    binary, folder = sys.argv[1:]
    crypto, ssl = load(folder)
    print(crypto.OpenSSL_version(0).decode())
    key = crypto.EVP_PKEY_new_raw_private_key(ED25519, None, bytes(range(32)), c_size_t(32))
    for is_server in (True, False):
        run(crypto, ssl, binary, key, is_server)


main()
