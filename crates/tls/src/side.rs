//! One end of a TLS connection, of either role.

use std::ops::Deref;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{EncodeError, EncodeTlsData};
use rustls::{CommonState, Error};

pub(crate) enum RustlsConnection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

impl Deref for RustlsConnection {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        match self {
            Self::Client(client) => client,
            Self::Server(server) => server,
        }
    }
}

/// Adds what rustls wants to send to what is `queued`.
pub(crate) fn queue<Data>(
    mut data: EncodeTlsData<'_, Data>,
    queued: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = queued.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        queued.resize(start + size.required_size, 0);
    }
    let encoded = data.encode(queued.get_mut(start..).unwrap_or_default());
    encoded
        .map(drop)
        .map_err(|error| Error::General(error.to_string()))
}
