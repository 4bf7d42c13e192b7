//! Bytes that are no request: each costs its sender an error and nobody else anything.

use prost::bytes::{Buf as _, BufMut as _};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Endpoint,
};

use crate::stage::Stage;

/// Sends and receives messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

const METHODS: [&str; 15] = [
    "NodeGroups",
    "NodeGroupForNode",
    "PricingNodePrice",
    "PricingPodPrice",
    "GPULabel",
    "GetAvailableGPUTypes",
    "Cleanup",
    "Refresh",
    "NodeGroupTargetSize",
    "NodeGroupIncreaseSize",
    "NodeGroupDeleteNodes",
    "NodeGroupDecreaseTargetSize",
    "NodeGroupNodes",
    "NodeGroupTemplateNodeInfo",
    "NodeGroupGetOptions",
];

#[tokio::test]
async fn bytes_that_are_no_request_are_refused_and_change_nothing() {
    let stage = Stage::start("").await;
    let address = format!("unix://{}/provider.sock", stage.folder.path().display());
    let mut client = Grpc::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
    // A field number of zero; a length beyond the end; text that is no text; a number cut short.
    let nonsense: [&[u8]; 4] = [&[0, 0], &[10, 200, 1], &[10, 2, 0xff, 0xfe, 18, 2, 0xff, 0xfe], &[8, 0x80]];
    for method in METHODS {
        for bytes in nonsense {
            let path = format!("/clusterautoscaler.cloudprovider.v1.externalgrpc.CloudProvider/{method}");
            client.ready().await.unwrap();
            let path: PathAndQuery = path.parse().unwrap();
            let answer = client.unary(Request::new(bytes.to_vec()), path, Raw).await;
            let code = answer.map_or_else(|status: Status| status.code(), |_| Code::Ok);
            // Requests without fields step over fields they do not know, as protobuf wants it.
            let empty = matches!(method, "NodeGroups" | "GPULabel" | "GetAvailableGPUTypes" | "Cleanup" | "Refresh");
            assert!(code != Code::Ok || (empty && bytes[0] == 10), "{method} {bytes:?} {code:?}");
            assert_ne!(code, Code::Unavailable, "{method} {bytes:?}: the connection lives");
        }
    }
    assert_eq!((stage.target("spot").await, stage.machines("spot").await.len()), (2, 2));
}
