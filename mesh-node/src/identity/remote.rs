//! The controller as signer: `Control.Sign`.

use mesh_proto::v1::{SignReply, SignRequest, Unit, control_client::ControlClient, sign_request};
use rustls_pki_types::CertificateDer;
use tonic::Code;

use super::signer::{SignError, SignFuture, Signed, Signer, Subject};
use crate::feed::{Controller, status_text};

/// Asks the controller.
#[derive(Clone, Debug)]
pub struct RemoteSigner {
    controller: Controller,
}

impl RemoteSigner {
    /// A signer behind that controller.
    pub fn new(controller: Controller) -> Self {
        Self { controller }
    }
}

impl Signer for RemoteSigner {
    fn sign(&self, subject: Subject, csr: Vec<u8>) -> SignFuture {
        let controller = self.controller.clone();
        Box::pin(async move {
            let channel = controller.channel().map_err(|error| SignError::Unreachable(error.to_string()))?;
            let request = controller
                .authorized(request(subject, csr))
                .map_err(|error| SignError::Unreachable(error.to_string()))?;
            match ControlClient::new(channel).sign(request).await {
                Ok(reply) => Ok(signed(reply.into_inner())),
                Err(status) => Err(sign_error(&status)),
            }
        })
    }
}

fn request(subject: Subject, csr: Vec<u8>) -> SignRequest {
    let subject = match subject {
        Subject::Workload(identity) => sign_request::Subject::Identity(identity.to_string()),
        Subject::NodeServer(_) => sign_request::Subject::NodeServer(Unit {}),
    };
    SignRequest { csr: csr.into(), subject: Some(subject) }
}

fn signed(reply: SignReply) -> Signed {
    let certificates =
        |list: Vec<bytes::Bytes>| list.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    Signed { chain: certificates(reply.chain), roots: certificates(reply.roots) }
}

fn sign_error(status: &tonic::Status) -> SignError {
    match status.code() {
        Code::PermissionDenied
        | Code::InvalidArgument
        | Code::Unauthenticated
        | Code::NotFound
        | Code::FailedPrecondition => SignError::Refused(status.message().to_owned()),
        _ => SignError::Unreachable(status_text(status)),
    }
}
