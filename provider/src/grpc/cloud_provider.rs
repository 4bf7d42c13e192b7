//! The fifteen requests of CA to a cloud provider. Reads come from the snapshot; changes go through the keeper and are
//! answered when the snapshot shows them.

use std::{collections::HashMap, sync::Arc};

use tonic::{Request, Response, Status};
use windlass_proto::externalgrpc::{self as wire, cloud_provider_server};

use super::{expander, options, status, wire as words};
use crate::{
    Shared,
    fleet::{GroupView, group::Gpus, prices, template::Dialect},
    keeper::{Command, Unheard},
    snapshot::Snapshot,
};

/// Answers CA.
pub(super) struct CloudProvider {
    shared: Arc<Shared>,
}

type Answer<T> = Result<Response<T>, Status>;

impl CloudProvider {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The snapshot, once there is anything in it: an empty answer would look like an empty cloud.
    fn snapshot(&self) -> Result<Arc<Snapshot>, Status> {
        let snapshot = self.shared.keeper.snapshot();
        match snapshot.synced_at {
            Some(_) => Ok(snapshot),
            None => Err(Status::unavailable("the cloud has not been listed yet; ask again in a moment")),
        }
    }

    fn group(&self, id: &str) -> Result<Arc<GroupView>, Status> {
        let unknown = || Status::not_found(format!("no node group \"{id}\" is known; NodeGroups lists those that are"));
        self.snapshot()?.fleet.group(id).cloned().ok_or_else(unknown)
    }

    fn look_at_labels(&self, view: &GroupView, node: &wire::ExternalGrpcNode) {
        let label = &self.shared.dialect.gpu_label;
        if self.shared.unlabelled.seen(view, &node.provider_id, &node.labels, label) {
            tracing::warn!(group = %view.group.id, node = node.name, "a GPU node registered without the label {label}: the autoscaler may buy a second one");
        }
    }

    async fn change(&self, command: impl FnOnce(crate::keeper::Reply) -> Command) -> Result<(), Status> {
        self.snapshot()?;
        self.shared.keeper.ask(command).await.map_err(|unheard| status(&unheard))
    }
}

#[tonic::async_trait]
impl cloud_provider_server::CloudProvider for CloudProvider {
    async fn node_groups(&self, _: Request<wire::NodeGroupsRequest>) -> Answer<wire::NodeGroupsResponse> {
        let node_groups = self.snapshot()?.fleet.groups().map(|view| words::group(view)).collect();
        Ok(Response::new(wire::NodeGroupsResponse { node_groups }))
    }

    /// An unknown node is no error: it is not autoscaled. A real one tells us that its machine has registered.
    async fn node_group_for_node(
        &self,
        request: Request<wire::NodeGroupForNodeRequest>,
    ) -> Answer<wire::NodeGroupForNodeResponse> {
        let snapshot = self.snapshot()?;
        let node = request.into_inner().node.unwrap_or_default();
        let view = snapshot.fleet.group_of(&node.provider_id);
        let news = view.and_then(|view| view.instance(&node.provider_id)).is_some_and(|it| it.registered_at.is_none());
        if let Some(view) = view.filter(|_| !words::is_fake(&node)) {
            self.look_at_labels(view, &node);
            if let Some(names) = &self.shared.names {
                names.learn(&node.name, &node.provider_id);
            }
        }
        if news && !words::is_fake(&node) {
            self.shared.keeper.tell(Command::Seen(node.provider_id));
        }
        let node_group = Some(view.map(|view| words::group(view)).unwrap_or_default());
        Ok(Response::new(wire::NodeGroupForNodeResponse { node_group }))
    }

    async fn pricing_node_price(
        &self,
        request: Request<wire::PricingNodePriceRequest>,
    ) -> Answer<wire::PricingNodePriceResponse> {
        let snapshot = self.snapshot()?;
        let request = request.into_inner();
        let hours =
            hours((request.start_timestamp.or(request.start_time), request.end_timestamp.or(request.end_time)))?;
        if snapshot.fleet.groups().all(|view| view.group.price_micros.is_none()) {
            return Err(Status::unimplemented("no node group has a price"));
        }
        let node = request.node.unwrap_or_default();
        let (name, labels) = (node.name.clone(), words::labels(node));
        let micros = prices::node_price(&labels, snapshot.fleet.groups());
        let micros = micros.ok_or_else(|| Status::not_found(format!("no priced group is like node \"{name}\"")))?;
        Ok(Response::new(wire::PricingNodePriceResponse { price: words::dollars(micros, hours) }))
    }

    async fn pricing_pod_price(
        &self,
        request: Request<wire::PricingPodPriceRequest>,
    ) -> Answer<wire::PricingPodPriceResponse> {
        let snapshot = self.snapshot()?;
        let request = request.into_inner();
        let hours =
            hours((request.start_timestamp.or(request.start_time), request.end_timestamp.or(request.end_time)))?;
        let groups: Vec<_> = snapshot.fleet.groups().collect();
        let rates = prices::rates(groups.iter().copied());
        let rates = rates.ok_or_else(|| Status::unimplemented("no node group has a price"))?;
        let bytes = if request.pod_bytes.is_empty() { &request.pod } else { &request.pod_bytes };
        let pod = expander::pods::read(bytes).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let gpus = pod.needs.extended.iter().filter(|(name, _)| Dialect::is_gpu(name)).map(|(_, count)| *count);
        let gpus = gpus.fold(0, u64::saturating_add);
        let micros = prices::pod_price(rates, pod.needs.cpu_milli, pod.needs.memory, gpus);
        Ok(Response::new(wire::PricingPodPriceResponse { price: words::dollars(micros, hours) }))
    }

    async fn gpu_label(&self, _: Request<wire::GpuLabelRequest>) -> Answer<wire::GpuLabelResponse> {
        Ok(Response::new(wire::GpuLabelResponse { label: self.shared.dialect.gpu_label.clone() }))
    }

    async fn get_available_gpu_types(
        &self,
        _: Request<wire::GetAvailableGpuTypesRequest>,
    ) -> Answer<wire::GetAvailableGpuTypesResponse> {
        let snapshot = self.snapshot()?;
        let labelled = |gpus: &&Gpus| Dialect::labels_gpus(gpus);
        let gpus = snapshot.fleet.groups().filter_map(|view| view.group.shape.gpus.as_ref()).filter(labelled);
        let models = gpus.map(|gpus| gpus.model.clone()).chain(self.shared.dialect.gpu_models().map(ToOwned::to_owned));
        let gpu_types: HashMap<_, _> = models.map(|model| (model, prost_types::Any::default())).collect();
        Ok(Response::new(wire::GetAvailableGpuTypesResponse { gpu_types }))
    }

    /// CA calls this at its end; the next CA goes on with the same fleet, so nothing durable happens.
    async fn cleanup(&self, _: Request<wire::CleanupRequest>) -> Answer<wire::CleanupResponse> {
        Ok(Response::new(wire::CleanupResponse {}))
    }

    /// The keeper lists the cloud at its own pace; here CA learns whether there is anything to work with, and waits a
    /// moment for what it has bought and the cloud has not answered yet.
    async fn refresh(&self, _: Request<wire::RefreshRequest>) -> Answer<wire::RefreshResponse> {
        self.snapshot()?;
        self.shared.keeper.called();
        self.shared.keeper.attend().await;
        Ok(Response::new(wire::RefreshResponse {}))
    }

    async fn node_group_target_size(
        &self,
        request: Request<wire::NodeGroupTargetSizeRequest>,
    ) -> Answer<wire::NodeGroupTargetSizeResponse> {
        let target_size = words::int(self.group(&request.into_inner().id)?.target);
        Ok(Response::new(wire::NodeGroupTargetSizeResponse { target_size }))
    }

    async fn node_group_increase_size(
        &self,
        request: Request<wire::NodeGroupIncreaseSizeRequest>,
    ) -> Answer<wire::NodeGroupIncreaseSizeResponse> {
        let wire::NodeGroupIncreaseSizeRequest { delta, id: group } = request.into_inner();
        self.change(|reply| Command::Increase { group, delta, reply }).await?;
        Ok(Response::new(wire::NodeGroupIncreaseSizeResponse {}))
    }

    async fn node_group_delete_nodes(
        &self,
        request: Request<wire::NodeGroupDeleteNodesRequest>,
    ) -> Answer<wire::NodeGroupDeleteNodesResponse> {
        let wire::NodeGroupDeleteNodesRequest { nodes, id: group } = request.into_inner();
        self.group(&group)?;
        let nodes = words::named(nodes).map_err(|denied| status(&Unheard::Denied(denied)))?;
        self.change(|reply| Command::Delete { group, nodes, reply }).await?;
        Ok(Response::new(wire::NodeGroupDeleteNodesResponse {}))
    }

    async fn node_group_decrease_target_size(
        &self,
        request: Request<wire::NodeGroupDecreaseTargetSizeRequest>,
    ) -> Answer<wire::NodeGroupDecreaseTargetSizeResponse> {
        let wire::NodeGroupDecreaseTargetSizeRequest { delta, id: group } = request.into_inner();
        self.change(|reply| Command::Decrease { group, delta, reply }).await?;
        Ok(Response::new(wire::NodeGroupDecreaseTargetSizeResponse {}))
    }

    async fn node_group_nodes(
        &self,
        request: Request<wire::NodeGroupNodesRequest>,
    ) -> Answer<wire::NodeGroupNodesResponse> {
        let instances = words::instances(&*self.group(&request.into_inner().id)?);
        Ok(Response::new(wire::NodeGroupNodesResponse { instances }))
    }

    /// The same bytes under the old and the new number; never empty, since CA would not survive that.
    async fn node_group_template_node_info(
        &self,
        request: Request<wire::NodeGroupTemplateNodeInfoRequest>,
    ) -> Answer<wire::NodeGroupTemplateNodeInfoResponse> {
        let node_bytes = self.group(&request.into_inner().id)?.template_bytes.to_vec();
        Ok(Response::new(wire::NodeGroupTemplateNodeInfoResponse { node_info: node_bytes.clone(), node_bytes }))
    }

    async fn node_group_get_options(
        &self,
        request: Request<wire::NodeGroupAutoscalingOptionsRequest>,
    ) -> Answer<wire::NodeGroupAutoscalingOptionsResponse> {
        let request = request.into_inner();
        let view = self.group(&request.id)?;
        let options = options::answer(request.defaults.as_ref(), &view.group.overrides);
        if options.is_some() && request.defaults.as_ref().is_some_and(options::is_new) {
            self.shared.warn_once(&request.id, "its own options make CA 1.35 and newer count a booting node as unready (kubernetes/autoscaler#10245); the purchase memory keeps it from buying twice");
        }
        Ok(Response::new(wire::NodeGroupAutoscalingOptionsResponse { node_group_autoscaling_options: options }))
    }
}

fn hours((start, end): (Option<prost_types::Timestamp>, Option<prost_types::Timestamp>)) -> Result<f64, Status> {
    words::hours(start, end).ok_or_else(|| Status::invalid_argument("a start and an end after it are needed"))
}
