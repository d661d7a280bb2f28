# Sourced by tests/run.sh and run-demo.sh.

# Not every root shell has the folder of ip and nft.
export PATH="$PATH:/usr/sbin:/sbin"

# need PACKAGE:COMMAND... : installs the Debian packages whose command (or, with
# a leading slash, file) is absent; where it cannot, says in one line what is missing.
need() {
    missing=
    for pair in "$@"; do
        probe=${pair#*:}
        case $probe in
        # Unquoted: it may be a pattern.
        /*) ls $probe >/dev/null 2>&1 && continue ;;
        *) command -v "$probe" >/dev/null 2>&1 && continue ;;
        esac
        missing="$missing ${pair%%:*}"
    done
    [ -z "$missing" ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing:$missing"
        apt-get update -qq
        # Unquoted: a list of packages.
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "missing (Debian package names):$missing" >&2
        exit 1
    fi
}

# What eframe opens at run time; the glob covers the folders of all architectures.
WINDOW_LIBRARIES="libx11-6:/usr/lib/*/libX11.so.6 libx11-xcb1:/usr/lib/*/libX11-xcb.so.1
    libxcursor1:/usr/lib/*/libXcursor.so.1 libxi6:/usr/lib/*/libXi.so.6
    libxkbcommon-x11-0:/usr/lib/*/libxkbcommon-x11.so.0 libegl1:/usr/lib/*/libEGL.so.1
    libgl1-mesa-dri:/usr/lib/*/dri/*_dri.so libfontconfig1:/usr/lib/*/libfontconfig.so.1"
