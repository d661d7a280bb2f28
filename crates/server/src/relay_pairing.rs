//! Pairing two connections at the relay.

use std::sync::Arc;

use pinhole_proto::frame::Decoder;
use pinhole_proto::registry::{Inviter, RelayId};
use pinhole_proto::rendezvous::{Refusal, RelayToken, ServerMessage};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::info;

use crate::context::{ConnectionError, Context, Phase, refuse, tell, write_frame, write_message};
use crate::inbox::{RegistrarInput, RelayDecision, RelayLeg, TlsStream};
use crate::relay::CarryError;

/// Reads the end of what the client says in TLS: the token was the last of it.
async fn end_of_tls(
    context: &Context,
    half: &mut RelayLeg,
    decoder: Decoder,
) -> Result<(), ConnectionError> {
    if !decoder.into_rest().is_empty() {
        return Err(ConnectionError::Unexpected);
    }
    let mut byte = [0];
    let read = timeout(
        context.limits.authenticate_timeout,
        half.stream.read(&mut byte),
    );
    match read.await.map_err(|_| ConnectionError::Slow)?? {
        0 => Ok(()),
        _ => Err(ConnectionError::Unexpected),
    }
}

/// Waits until the client hangs up. Fails when it sends anything.
async fn wait_for_end(context: &Context, half: &RelayLeg) -> Result<(), ConnectionError> {
    let mut byte = [0];
    let (tcp, _) = half.stream.get_ref();
    tokio::select! {
        read = tcp.peek(&mut byte) => match read? {
            0 => Ok(()),
            _ => Err(ConnectionError::Unexpected),
        },
        reason = context.cut_off(&half.connection) => Err(ConnectionError::CutOff(reason)),
    }
}

/// Tells the client that its peer is here, as the last in TLS. Returns the connection below.
async fn say_paired(
    context: &Context,
    mut stream: TlsStream,
) -> Result<TcpStream, ConnectionError> {
    write_message(context, &mut stream, &ServerMessage::RelayPaired).await?;
    stream.get_mut().1.send_close_notify();
    write_frame(context, &mut stream, &[]).await?;
    Ok(stream.into_inner().0)
}

/// Serves a connection that has shown a token.
pub(crate) async fn relay(
    context: &Context,
    mut half: RelayLeg,
    decoder: Decoder,
    token: RelayToken,
) -> Result<(), ConnectionError> {
    end_of_tls(context, &mut half, decoder).await?;
    let relay = RelayId(context.fresh_id());
    let (verdict, decided) = oneshot::channel();
    let input = RegistrarInput::Relay {
        relay,
        key: half.key,
        token,
        connection: Arc::clone(&half.connection),
        verdict,
    };
    tell(context, input).await?;
    let verdict = tokio::select! {
        verdict = decided => {
            verdict.map_err(|_| ConnectionError::CutOff(Refusal::ShuttingDown))?
        }
        ended = wait_for_end(context, &half) => {
            // The registrar is gone only when it has forgotten all relays.
            let _: Result<(), _> = tell(context, RegistrarInput::RelayDisconnected { relay }).await;
            return match ended {
                Err(ConnectionError::CutOff(reason)) => refuse(context, half.stream, reason).await,
                ended => ended,
            };
        }
    };
    match verdict {
        RelayDecision::Refused(reason) => refuse(context, half.stream, reason).await,
        RelayDecision::Second(give) => {
            let given = give.send(half);
            given.map_err(|_| ConnectionError::Empty)
        }
        RelayDecision::First(take, inviter) => {
            let other = take.await.map_err(|_| ConnectionError::Empty)?;
            Box::pin(meet(context, half, other, inviter)).await
        }
    }
}

/// Carries bytes once both sides are connected.
async fn meet(
    context: &Context,
    a: RelayLeg,
    b: RelayLeg,
    inviter: Inviter,
) -> Result<(), ConnectionError> {
    let is_known = context.admission.is_regular(inviter.key);
    let keys = [a.key, b.key];
    let pair = match context.relay.admit(keys, inviter, is_known) {
        Ok(pair) => pair,
        Err(reason) => {
            if context.log.admits(inviter.address) {
                let key = inviter.key.fingerprint();
                let from = context.log.shown(inviter.address);
                info!(inviter = %key, from, "relay refused: {reason}");
            }
            let refused = tokio::join!(
                refuse(context, a.stream, reason),
                refuse(context, b.stream, reason)
            );
            return refused.0.and(refused.1);
        }
    };
    // They stay open until whoever is at their other ends has heard why they end.
    let mut streams = [
        say_paired(context, a.stream).await?,
        say_paired(context, b.stream).await?,
    ];
    let carried = tokio::select! {
        carried = context.relay.carry(&pair, &mut streams) => carried,
        () = context.reached(Phase::Ending) => {
            return Err(ConnectionError::CutOff(Refusal::ShuttingDown));
        }
        () = a.connection.evicted() => return Err(ConnectionError::CutOff(Refusal::Limited)),
        () = b.connection.evicted() => return Err(ConnectionError::CutOff(Refusal::Limited)),
    };
    match carried {
        Ok(()) => Ok(()),
        Err(CarryError::Io(error)) => Err(error.into()),
        Err(CarryError::Limit(reason)) => {
            if context.log.admits(inviter.address) {
                let key = inviter.key.fingerprint();
                let from = context.log.shown(inviter.address);
                info!(inviter = %key, from, "relay ended: {reason}");
            }
            let keys = pair.keys;
            tell(context, RegistrarInput::RelayEnded { keys, reason }).await?;
            // The reason takes another path than the end of the connection, and has to
            // arrive first.
            sleep(context.limits.linger_timeout).await;
            Ok(())
        }
    }
}
