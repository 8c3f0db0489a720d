//! Docker, as far as the agent needs it: events, a look at containers, sidecars made, started, signalled, removed.

pub mod event;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::API_DEFAULT_VERSION;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions,
};
use tokio_stream::{Stream, StreamExt as _};

use crate::member::{is_sidecar, label};
use crate::sidecar::image::Image;
use event::{ACTIONS, Event};

/// Longest time for one answer. Starting a container on a loaded host takes seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Most bytes of an error of docker's that are repeated.
const MESSAGE_BYTES_MAX: usize = 500;

/// Why docker did not do something.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// There is no such container or image (any more).
    #[error("docker knows no such thing")]
    NotFound,
    /// It is already so, or a name is taken.
    #[error("docker says it conflicts: {0}")]
    Conflict(String),
    /// Docker refuses, or cannot be reached.
    #[error("docker: {0}")]
    Failed(String),
}

impl From<Error> for DockerError {
    fn from(error: Error) -> Self {
        let short = |text: String| text.chars().take(MESSAGE_BYTES_MAX).collect();
        match error {
            Error::DockerResponseServerError { status_code: 404, .. } => Self::NotFound,
            Error::DockerResponseServerError { status_code: 304 | 409, message } => {
                Self::Conflict(short(message))
            }
            other => Self::Failed(short(other.to_string())),
        }
    }
}

/// A connection to docker: each call opens one of its own, so it outlives docker's restart.
#[derive(Clone, Debug)]
pub struct Docker {
    client: bollard::Docker,
}

impl Docker {
    /// Finds docker at its socket and agrees on a version of its interface.
    ///
    /// *Errors*: there is no socket, or nobody answers.
    pub async fn connect(socket: &Path) -> Result<Self, DockerError> {
        let path =
            socket.to_str().ok_or_else(|| DockerError::Failed("the socket's path is not UTF-8".into()))?;
        let client = bollard::Docker::connect_with_unix(path, TIMEOUT.as_secs(), API_DEFAULT_VERSION)?;
        Ok(Self { client: client.negotiate_version().await? })
    }

    /// Events from now on, until docker goes away.
    pub fn events(&self) -> impl Stream<Item = Result<Event, DockerError>> + use<> {
        let actions = ACTIONS.map(str::to_owned).to_vec();
        let filters: HashMap<String, Vec<String>> =
            HashMap::from([("type".into(), vec!["container".into()]), ("event".into(), actions)]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let events = self.client.events(Some(options));
        events.filter_map(|message| match message {
            Ok(message) => event::read(&message).map(Ok),
            Err(error) => Some(Err(error.into())),
        })
    }

    /// Ids of all containers that carry a label, running or not.
    ///
    /// *Errors*: [`DockerError`].
    async fn with_label(
        &self,
        text: String,
        running: bool,
    ) -> Result<Vec<(String, HashMap<String, String>)>, DockerError> {
        let filters: HashMap<String, Vec<String>> = HashMap::from([("label".into(), vec![text])]);
        let options = ListContainersOptionsBuilder::default().all(!running).filters(&filters).build();
        let list = self.client.list_containers(Some(options)).await?;
        Ok(list.into_iter().filter_map(|c| Some((c.id?, c.labels.unwrap_or_default()))).collect())
    }

    /// Ids of the running containers of tasks.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn tasks(&self) -> Result<Vec<String>, DockerError> {
        let all = self.with_label(label::ecs::TASK_ARN.to_owned(), true).await?;
        Ok(all.into_iter().map(|(id, _)| id).collect())
    }

    /// Labels of all sidecars, running or not.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn sidecars(&self) -> Result<Vec<HashMap<String, String>>, DockerError> {
        let role = format!("{}={}", label::sidecar::ROLE, label::sidecar::ROLE_SIDECAR);
        let all = self.with_label(role, false).await?.into_iter().map(|(_, labels)| labels);
        Ok(all.filter(is_sidecar).collect())
    }

    /// Ids of the sidecars of an application, running or not.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn sidecars_of(&self, app: &str) -> Result<Vec<String>, DockerError> {
        let all = self.with_label(format!("{}={app}", label::sidecar::FOR), false).await?;
        Ok(all.into_iter().map(|(id, _)| id).collect())
    }

    /// A container, or `None` when there is none.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn inspect(&self, id: &str) -> Result<Option<ContainerInspectResponse>, DockerError> {
        match self.client.inspect_container(id, None::<InspectContainerOptions>).await.map_err(Into::into) {
            Ok(container) => Ok(Some(container)),
            Err(DockerError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An image, or `None` when the host does not have it.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn image(&self, name: &str) -> Result<Option<Image>, DockerError> {
        match self.client.inspect_image(name).await.map_err(Into::into) {
            Ok(image) => {
                let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
                Ok(Some(Image::new(image.id.unwrap_or_default(), &labels)))
            }
            Err(DockerError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches an image.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn pull(&self, name: &str) -> Result<(), DockerError> {
        let options = CreateImageOptionsBuilder::default().from_image(name).build();
        let mut progress = std::pin::pin!(self.client.create_image(Some(options), None, None));
        while let Some(step) = progress.next().await {
            step?;
        }
        Ok(())
    }

    /// Makes a container and returns its id.
    ///
    /// *Errors*: [`DockerError::Conflict`] when its name is taken.
    pub async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, DockerError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        Ok(self.client.create_container(Some(options), body).await?.id)
    }

    /// Starts a container; one that runs is no error.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn start(&self, id: &str) -> Result<(), DockerError> {
        Ok(self.client.start_container(id, None::<StartContainerOptions>).await?)
    }

    /// Sends SIGTERM; a container that does not run (any more) is no error.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn terminate(&self, id: &str) -> Result<(), DockerError> {
        let options = KillContainerOptionsBuilder::default().signal("SIGTERM").build();
        match self.client.kill_container(id, Some(options)).await.map_err(Into::into) {
            Ok(()) | Err(DockerError::NotFound | DockerError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a container, even if it runs; one that is gone is no error.
    ///
    /// *Errors*: [`DockerError`].
    pub async fn remove(&self, id: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.client.remove_container(id, Some(options)).await.map_err(Into::into) {
            // In conflict with a removal that is under way.
            Ok(()) | Err(DockerError::NotFound | DockerError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
